"""Words over HTTP: requests become batches, and nothing that was accepted is lost."""
