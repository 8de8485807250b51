from hiera_video.cli import run, train

if __name__ == "__main__":
    run.run_tool(train.main)
