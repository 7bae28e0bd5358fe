variable "table_name" {
  description = "Table name: DYNAMODB_TABLE_NAME for both roles."
  type        = string
  default     = "hsdo"

  validation {
    condition     = can(regex("^[a-zA-Z0-9_.-]{3,255}$", var.table_name))
    error_message = "A DynamoDB table name has 3 to 255 letters, digits, underscores, dots and hyphens."
  }
}

variable "report_table_name" {
  description = "Name of the table of reports: DYNAMODB_REPORT_TABLE_NAME for both roles. None if null."
  type        = string
  default     = null

  validation {
    condition     = var.report_table_name == null || can(regex("^[a-zA-Z0-9_.-]{3,255}$", var.report_table_name))
    error_message = "A DynamoDB table name has 3 to 255 letters, digits, underscores, dots and hyphens."
  }
}

variable "lifecycle_hook_groups" {
  description = "Auto Scaling groups whose instances hsdo may let go (SERVER_LIFECYCLE_HOOK), by name; * stands for any text."
  type        = list(string)
  default     = []
}

variable "name_prefix" {
  description = "Prefix of the names of the policies."
  type        = string
  default     = "hsdo"
}

variable "deletion_protection" {
  description = "Whether AWS refuses to delete the table. Turn it off before terraform destroy."
  type        = bool
  default     = true
}

variable "create_table" {
  description = "Whether to create the tables. If false, the server role may create it (hsdo --create-table)."
  type        = bool
  default     = true
}

variable "tags" {
  description = "Tags for the table and the policies."
  type        = map(string)
  default     = {}
}
