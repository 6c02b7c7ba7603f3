"""MQTT: events, retained states and commands over one connection."""
