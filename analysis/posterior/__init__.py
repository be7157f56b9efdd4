"""Can the guide be trusted?"""
