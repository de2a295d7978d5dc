"""Pure tensor mathematics of few-step generative models. Imports torch and `core` only.

Conventions of the whole library: ``t = 0`` is noise, ``t = 1`` is data; ``d`` is the step size, ``d = 0`` the
instantaneous velocity; guidance ``W = 1`` means none.
"""
