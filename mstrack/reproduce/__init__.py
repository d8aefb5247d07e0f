"""`mst reproduce`: every row of the paper by name, as data: rows, studies (tables and figures), scales, and what runs them."""
