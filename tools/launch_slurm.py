from hiera_video.cli import launch_slurm, run

if __name__ == "__main__":
    run.run_tool(launch_slurm.main)
