data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}
data "aws_region" "current" {}

locals {
  # Built from their parts, because the tables may be created elsewhere.
  place = "${data.aws_region.current.id}:${data.aws_caller_identity.current.account_id}"
  arn   = "arn:${data.aws_partition.current.partition}"

  table_arn        = "${local.arn}:dynamodb:${local.place}:table/${var.table_name}"
  report_table_arn = "${local.arn}:dynamodb:${local.place}:table/${coalesce(var.report_table_name, "-")}"
  has_reports      = var.report_table_name == null ? [] : [true]

  # Only these can be let go: `*` in a name stands for any text.
  hooked_group_arns = [
    for group in var.lifecycle_hook_groups :
    "${local.arn}:autoscaling:${local.place}:autoScalingGroup:*:autoScalingGroupName/${group}"
  ]
}

# The server reads the instances of its groups and writes the table; of several servers, only the leader does.
data "aws_iam_policy_document" "server" {
  statement {
    sid = "Table"
    # TransactWriteItems is not an IAM action: AWS authorises the updates in the transaction.
    actions = [
      "dynamodb:DescribeTable",
      "dynamodb:GetItem",
      "dynamodb:Scan",
      "dynamodb:UpdateItem",
    ]
    resources = [local.table_arn]
  }

  statement {
    sid = "Instances"
    # None of these supports resource-level permissions: "*" is required. Patterns, tags and weights by size need no others.
    actions = [
      "autoscaling:DescribeAutoScalingGroups",
      "ec2:DescribeInstances",
      "ec2:DescribeSpotInstanceRequests",
    ]
    resources = ["*"]
  }

  # DYNAMODB_REPORT_TABLE_NAME: the leader only reads what clients report.
  dynamic "statement" {
    for_each = local.has_reports

    content {
      sid       = "Reports"
      actions   = ["dynamodb:Scan"]
      resources = [local.report_table_arn]
    }
  }

  # SERVER_LIFECYCLE_HOOK.
  dynamic "statement" {
    for_each = length(var.lifecycle_hook_groups) > 0 ? [true] : []

    content {
      sid       = "LetInstancesGo"
      actions   = ["autoscaling:CompleteLifecycleAction"]
      resources = local.hooked_group_arns
    }
  }

  # Only SERVER_LIFECYCLE_HOOK = "*" asks for the names of hooks; the action supports no resource-level permissions.
  dynamic "statement" {
    for_each = length(var.lifecycle_hook_groups) > 0 ? [true] : []

    content {
      sid       = "Hooks"
      actions   = ["autoscaling:DescribeLifecycleHooks"]
      resources = ["*"]
    }
  }

  dynamic "statement" {
    for_each = var.create_table ? [] : [true]

    content {
      sid = "CreateTable"
      actions = [
        "dynamodb:CreateTable",
        "dynamodb:DescribeTable",
        "dynamodb:DescribeTimeToLive",
        "dynamodb:UpdateTimeToLive",
      ]
      resources = concat([local.table_arn], [for _ in local.has_reports : local.report_table_arn])
    }
  }
}

# Read access to the table only: a compromised load balancer cannot change it. In the report table it can write what it likes, which
# holds an instance until its deadline at worst, or lets it go early.
data "aws_iam_policy_document" "client" {
  statement {
    sid = "Table"
    actions = [
      "dynamodb:GetItem",
      "dynamodb:Scan",
    ]
    resources = [local.table_arn]
  }

  dynamic "statement" {
    for_each = local.has_reports

    content {
      sid       = "Report"
      actions   = ["dynamodb:UpdateItem", "dynamodb:DeleteItem"]
      resources = [local.report_table_arn]
    }
  }
}

# For the commands for people: `hsdo status`, `why`, `drain` and `enable`.
data "aws_iam_policy_document" "operator" {
  statement {
    sid = "Table"
    actions = [
      "dynamodb:GetItem",
      "dynamodb:Scan",
      "dynamodb:UpdateItem",
    ]
    resources = [local.table_arn]
  }

  dynamic "statement" {
    for_each = local.has_reports

    content {
      sid       = "Reports"
      actions   = ["dynamodb:Scan"]
      resources = [local.report_table_arn]
    }
  }

  statement {
    sid = "Instances"
    # None of these supports resource-level permissions: "*" is required.
    actions = [
      "autoscaling:DescribeAutoScalingGroups",
      "ec2:DescribeInstances",
      "ec2:DescribeSpotInstanceRequests",
    ]
    resources = ["*"]
  }
}

resource "aws_iam_policy" "server" {
  name        = "${var.name_prefix}-server"
  description = "hsdo --server: reads Auto Scaling groups and instances, reads and writes the table ${var.table_name}"
  policy      = data.aws_iam_policy_document.server.json
  tags        = var.tags
}

resource "aws_iam_policy" "client" {
  name        = "${var.name_prefix}-client"
  description = "hsdo --client: reads the table ${var.table_name}"
  policy      = data.aws_iam_policy_document.client.json
  tags        = var.tags
}

resource "aws_iam_policy" "operator" {
  name        = "${var.name_prefix}-operator"
  description = "hsdo status, why, drain and enable: reads the table ${var.table_name}, and writes orders to it"
  policy      = data.aws_iam_policy_document.operator.json
  tags        = var.tags
}
