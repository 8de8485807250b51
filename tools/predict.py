from hiera_video.cli import predict, run

if __name__ == "__main__":
    run.run_tool(predict.main)
