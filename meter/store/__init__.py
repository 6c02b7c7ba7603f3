"""The store: engine, tables, migrations, clerks, leases, guards. The rooms' own SQL is in the rooms."""
