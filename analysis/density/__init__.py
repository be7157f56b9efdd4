"""How probable are held-out data?"""
