"""Events as Parquet files: `gudgeon export` and `/export.parquet`."""
