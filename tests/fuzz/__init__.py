"""The router under fire: strangers, a dialer and endpoints that mean harm, beside a dialer that must not notice."""
