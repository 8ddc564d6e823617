"""Pictures, charts and the report page. It may import `training` (its logs), `evaluation`, `losses` and `data`."""
