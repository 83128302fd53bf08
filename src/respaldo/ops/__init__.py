"""What runs beside a repository: on the façade alone."""
