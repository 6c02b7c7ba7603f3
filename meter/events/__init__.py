"""Events of transfers, made of the journal's facts, for MQTT, webhooks and the feed."""
