from hiera_video.cli import run, search

if __name__ == "__main__":
    run.run_tool(search.main)
