"""The Python side of rometrace: pictures, the report page, and what reads results files."""
