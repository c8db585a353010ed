"""Who may see and do what over HTTP: users, sessions, and the guard before every request."""
