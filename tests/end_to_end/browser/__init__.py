"""A package, so that its installation (a fixture of package scope) ends once its last test has run."""
