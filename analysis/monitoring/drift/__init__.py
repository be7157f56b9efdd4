"""Drift: have the data changed since a model was fitted?"""
