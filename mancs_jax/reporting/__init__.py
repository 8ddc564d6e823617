"""Images, charts and the report page."""
