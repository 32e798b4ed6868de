"""Models of the protocols between the services and their servers, explored over every interleaving up to a depth."""
