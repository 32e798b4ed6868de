"""The Kibana dashboard as saved objects, and the service that imports them."""
