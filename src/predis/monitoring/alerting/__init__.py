"""What becomes of alerts: whom they are told to, through which channel, and that nothing of it is lost; error budgets.

``hysteresis`` decides when a condition is an alert, ``outbox`` what each route is to be told of an incident, ``deliverer`` tells it,
``channels`` know the wire of each kind of receiver. ``burn`` is the arithmetic of error budgets, ``levels`` feeds it.
"""
