from hiera_video.cli import run, write_localisation

if __name__ == "__main__":
    run.run_tool(write_localisation.main)
