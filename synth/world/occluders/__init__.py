"""What keeps the sun off a vehicle or stands before it: plants, poles, walls and patterns of shadow."""
