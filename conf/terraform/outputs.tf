output "table_name" {
  description = "DYNAMODB_TABLE_NAME for both roles."
  value       = var.table_name
}

output "report_table_name" {
  description = "DYNAMODB_REPORT_TABLE_NAME for both roles; null without one."
  value       = var.report_table_name
}

output "policy_arns" {
  description = "Policies by who needs them: server, client, operator."
  value       = { for name, policy in aws_iam_policy.policy : name => policy.arn }
}

output "role_arns" {
  description = "Roles by name: server, client. taskRoleArn of ECS tasks. Empty without role_services."
  value       = { for name, role in aws_iam_role.role : name => role.arn }
}

output "instance_profile_names" {
  description = "Instance profiles by name: server, client. Empty unless role_services has ec2."
  value       = { for name, profile in aws_iam_instance_profile.role : name => profile.name }
}
