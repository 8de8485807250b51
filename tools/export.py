from hiera_video.cli import export, run

if __name__ == "__main__":
    run.run_tool(export.main)
