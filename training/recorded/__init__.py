"""A site's own pictures: from the cameras' recordings to a labelled data set. No torch here.

A data set folder:

    pictures/<date>/<slot>/<camera>.png          as the section sees it
    pictures/<date>/<slot>/region/<camera>.png   the region at the camera's resolution, if recorded
    pictures/<date>/table-<camera>.csv           as the camera wrote it
    views.csv                                    every view: slot, time, camera, present or absent
    labels.csv                                   slot, label, time, made by `ddnn label`
    classes.txt                                  one class per line, in the order of the keys
"""
