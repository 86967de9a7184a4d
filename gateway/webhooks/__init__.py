"""Events told over HTTP, signed, to whoever is configured to hear of them."""
