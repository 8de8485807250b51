from hiera_video.cli import run, test

if __name__ == "__main__":
    run.run_tool(test.main)
