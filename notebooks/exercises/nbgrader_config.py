c = get_config()

c.CourseDirectory.course_id = "safeerase"
c.ClearSolutions.code_stub = {"python": "# your code here"}  # nothing that raises: it runs unsolved
c.ExecutePreprocessor.timeout = 300  # seconds a cell; the first one loads a model
# What zip_collect finds in downloaded/NAME/archive: alice__NAME.ipynb
c.FileNameCollectorPlugin.named_regexp = r".*[/\\](?P<student_id>[^/\\]+?)__(?P<file_id>\w+)"
