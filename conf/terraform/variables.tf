variable "table_name" {
  description = "Table name: DYNAMODB_TABLE_NAME for both roles. One table per service."
  type        = string
  default     = "hsdo"
  nullable    = false

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

variable "server_mode" {
  description = "SERVER_MODE of the server role: aws, or consul, which needs nothing of AWS but the tables."
  type        = string
  default     = "aws"
  nullable    = false

  validation {
    condition     = contains(["aws", "consul"], var.server_mode)
    error_message = "server_mode is aws or consul, as SERVER_MODE."
  }
}

variable "spot_notice" {
  description = "Whether the server role may ask which Spot instances EC2 is about to interrupt: SERVER_SPOT_NOTICE."
  type        = bool
  default     = true
  nullable    = false
}

variable "lifecycle_hook_groups" {
  description = "Auto Scaling groups whose instances the server role may let go, by name; * stands for any text. None if empty."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    # IAM takes ? for any character, and $ for the begin of a variable of its own.
    condition     = alltrue([for group in var.lifecycle_hook_groups : can(regex("^[^:?$]{1,255}$", group))])
    error_message = "The name of an Auto Scaling group has 1 to 255 characters and no colon; here it may have neither ? nor $."
  }
}

variable "lifecycle_hook" {
  description = "SERVER_LIFECYCLE_HOOK: the name of the hook in those groups, or * for all, which takes the right to list them."
  type        = string
  default     = "*"
  nullable    = false

  validation {
    condition     = can(regex("^([*]|[a-zA-Z0-9_/-]{1,255})$", var.lifecycle_hook))
    error_message = "The name of a lifecycle hook has 1 to 255 letters, digits, hyphens, underscores and slashes; or it is *."
  }
}

variable "create_table" {
  description = "Whether to create the tables. If false, the server role may create them (hsdo --create-table)."
  type        = bool
  default     = true
  nullable    = false
}

variable "point_in_time_recovery" {
  description = "Whether the table of slots can be restored to any second of the last 35 days. Reports are not worth it."
  type        = bool
  default     = true
  nullable    = false
}

variable "deletion_protection" {
  description = "Whether AWS refuses to delete the table of slots. Turn it off before terraform destroy."
  type        = bool
  default     = true
  nullable    = false
}

variable "role_services" {
  description = "Who may take the roles of server and client: ec2, which also gets instance profiles, and ecs-tasks. No roles if empty."
  type        = list(string)
  default     = ["ec2", "ecs-tasks"]
  nullable    = false

  validation {
    condition     = length(setsubtract(var.role_services, ["ec2", "ecs-tasks"])) == 0
    error_message = "role_services holds ec2 and ecs-tasks only. For others, attach the policies to a role of your own."
  }
}

variable "permissions_boundary" {
  description = "ARN of the policy that bounds the roles, where an account demands one."
  type        = string
  default     = null
}

variable "name_prefix" {
  description = "Prefix of the names of policies, roles and instance profiles: unique in the account."
  type        = string
  default     = "hsdo"
  nullable    = false

  validation {
    condition     = can(regex("^[a-zA-Z0-9+=,.@_-]{1,55}$", var.name_prefix))
    error_message = "name_prefix has 1 to 55 letters, digits and +=,.@_- so that a role's name has at most 64."
  }
}

variable "tags" {
  description = "Tags for tables, policies, roles and instance profiles."
  type        = map(string)
  default     = {}
  nullable    = false
}
