"""What outlives the process, beside plain files"""
