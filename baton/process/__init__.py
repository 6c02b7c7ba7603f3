"""The processes: serve and its children, their control sockets, health and vitals."""
