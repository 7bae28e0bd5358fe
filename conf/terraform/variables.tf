variable "table_name" {
  description = "Name of the table: DYNAMODB_TABLE_NAME of both roles."
  type        = string
  default     = "hsdo"

  validation {
    condition     = can(regex("^[a-zA-Z0-9_.-]{3,255}$", var.table_name))
    error_message = "A DynamoDB table name has 3 to 255 letters, digits, underscores, dots and hyphens."
  }
}

variable "name_prefix" {
  description = "What the names of the two policies begin with."
  type        = string
  default     = "hsdo"
}

variable "deletion_protection" {
  description = "Whether AWS refuses to delete the table. Switch it off before terraform destroy."
  type        = bool
  default     = true
}

variable "create_table" {
  description = "Whether the table is made here. If not, the server role gets the right to make it (hsdo --create-table)."
  type        = bool
  default     = true
}

variable "tags" {
  description = "Tags of the table and of the policies."
  type        = map(string)
  default     = {}
}
