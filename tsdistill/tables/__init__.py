"""Reading data frames: columns, numbers, time stamps, zones and steps, for training and for serving alike.

Needs pandas and neither torch nor pydantic; imported where a frame is at hand.
"""
