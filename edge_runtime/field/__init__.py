"""The field side: tags, drivers and cameras."""
