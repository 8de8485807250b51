from hiera_video.cli import benchmark, run

if __name__ == "__main__":
    run.run_tool(benchmark.main)
