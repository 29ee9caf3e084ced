"""Jobs: folders of recordings, transcribed into folders of files by runs that may end and go on at any time"""

from .job import JobResult as JobResult
from .job import run as run
