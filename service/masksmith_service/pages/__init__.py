"""Web pages: HTML rendered on the server, with scripts for live updates; all assets are served from here."""
