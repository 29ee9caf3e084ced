"""The server on a Ray cluster, as an application of Ray Serve: replicas behind one front; needs the extra ``ray``"""

from .ray_serve import application as application
