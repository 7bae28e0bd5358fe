output "table_name" {
  description = "DYNAMODB_TABLE_NAME for both roles."
  value       = var.table_name
}

output "report_table_name" {
  description = "DYNAMODB_REPORT_TABLE_NAME for both roles; null without one."
  value       = var.report_table_name
}

output "server_policy_arn" {
  description = "Policy for machines that run hsdo --server."
  value       = aws_iam_policy.server.arn
}

output "client_policy_arn" {
  description = "Policy for machines that run hsdo --client."
  value       = aws_iam_policy.client.arn
}

output "operator_policy_arn" {
  description = "Policy for people and jobs that run hsdo status, why, drain and enable."
  value       = aws_iam_policy.operator.arn
}
