"""Generated against real data: is the prior predictive distribution that of the data?"""
