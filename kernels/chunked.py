"""placeholder"""
from fastzss.kernels.reference import *  # noqa
