"""The SQL of MQTT: retained topics, commands."""
