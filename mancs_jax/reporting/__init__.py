"""Pictures, charts and the report page."""
