from hiera_video.cli import extract, run

if __name__ == "__main__":
    run.run_tool(extract.main)
