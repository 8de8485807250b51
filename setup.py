"""Packages of the wheel; the rest is in pyproject.toml.

`configs/` and the benchmarks behind `hiera-video benchmark` lie beside the package and travel
inside it.
"""

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

BESIDE = {"hiera_video.configs": "configs", "hiera_video.benchmarks": "benchmarks"}
BENCHMARKS = (
    "data_advice",
    "data_stages",
    "record",
    "speed",
    "speed_case",
    "speed_implementations",
    "speed_lower_bound",
    "speed_measure",
    "speed_packages",
    "speed_rows",
)


class BuildPackages(build_py):
    """Leave out the benchmarks that no command runs."""

    def find_package_modules(self, package, package_dir):
        found = super().find_package_modules(package, package_dir)
        kept = BENCHMARKS if package == "hiera_video.benchmarks" else None
        return [module for module in found if kept is None or module[1] in kept]


setup(
    packages=[*find_packages(include=["hiera_video*"]), *BESIDE],
    package_dir=BESIDE,
    package_data={
        "hiera_video": ["py.typed", "**/*.html", "**/*.txt"],
        "hiera_video.configs": ["**/*.yaml"],
    },
    cmdclass={"build_py": BuildPackages},
)
