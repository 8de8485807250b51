from hiera_video.cli import check_data, run

if __name__ == "__main__":
    run.run_tool(check_data.main)
