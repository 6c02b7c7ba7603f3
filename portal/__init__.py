"""HTTP: the API and the pages behind signed links.

Belongs here: what speaks HTTP. `portal.http` is what every route stands on; each noun has a room that imports it alone.
"""
