# What each role may do, and for which feature. Everything here is needed: a test takes each action away and sees what fails.

data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}
data "aws_region" "current" {}

locals {
  # Built from their parts, because the tables may be created elsewhere.
  place = "${data.aws_region.current.id}:${data.aws_caller_identity.current.account_id}"
  arn   = "arn:${data.aws_partition.current.partition}"

  table_arn        = "${local.arn}:dynamodb:${local.place}:table/${var.table_name}"
  report_table_arn = "${local.arn}:dynamodb:${local.place}:table/${coalesce(var.report_table_name, "-")}"

  # Only these can be let go: `*` in a name stands for any text.
  hooked_group_arns = [
    for group in var.lifecycle_hook_groups :
    "${local.arn}:autoscaling:${local.place}:autoScalingGroup:*:autoScalingGroupName/${group}"
  ]
  lets_go = var.server_mode == "aws" && length(var.lifecycle_hook_groups) > 0

  # SERVER_MODE=aws. Neither supports resource-level permissions: "*" is required. Patterns, tags and weights by size need no others.
  read_instances = {
    wanted    = var.server_mode == "aws"
    actions   = ["autoscaling:DescribeAutoScalingGroups", "ec2:DescribeInstances"]
    resources = ["*"]
  }

  # SERVER_SPOT_NOTICE. It supports no resource-level permissions either.
  read_spot_notices = {
    wanted    = var.server_mode == "aws" && var.spot_notice
    actions   = ["ec2:DescribeSpotInstanceRequests"]
    resources = ["*"]
  }

  # DYNAMODB_REPORT_TABLE_NAME, for those who only read what clients report.
  read_reports = {
    wanted    = var.report_table_name != null
    actions   = ["dynamodb:Scan"]
    resources = [local.report_table_arn]
  }

  policies = {
    # The server reads the instances of its groups and writes the table; of several servers, only the leader does.
    server = {
      # TransactWriteItems is not an IAM action: AWS authorises the updates in the transaction.
      Table = {
        wanted    = true
        actions   = ["dynamodb:DescribeTable", "dynamodb:GetItem", "dynamodb:Scan", "dynamodb:UpdateItem"]
        resources = [local.table_arn]
      }
      Instances   = local.read_instances
      SpotNotices = local.read_spot_notices
      Reports     = local.read_reports
      # SERVER_LIFECYCLE_HOOK.
      LetInstancesGo = {
        wanted    = local.lets_go
        actions   = ["autoscaling:CompleteLifecycleAction"]
        resources = local.hooked_group_arns
      }
      # Only SERVER_LIFECYCLE_HOOK=* asks for the names of hooks. It supports no resource-level permissions.
      Hooks = {
        wanted    = local.lets_go && var.lifecycle_hook == "*"
        actions   = ["autoscaling:DescribeLifecycleHooks"]
        resources = ["*"]
      }
      CreateTable = {
        wanted    = !var.create_table
        actions   = ["dynamodb:CreateTable", "dynamodb:DescribeTable"]
        resources = concat([local.table_arn], local.read_reports.wanted ? [local.report_table_arn] : [])
      }
      # Reports expire; slots do not.
      ExpireReports = {
        wanted    = !var.create_table && local.read_reports.wanted
        actions   = ["dynamodb:DescribeTimeToLive", "dynamodb:UpdateTimeToLive"]
        resources = [local.report_table_arn]
      }
    }

    # Read access to the table only: a compromised load balancer cannot change it. In the report table it can write what it likes,
    # which holds an instance until its deadline at worst, or lets it go early.
    client = {
      Table = {
        wanted    = true
        actions   = ["dynamodb:GetItem", "dynamodb:Scan"]
        resources = [local.table_arn]
      }
      Report = {
        wanted    = local.read_reports.wanted
        actions   = ["dynamodb:UpdateItem", "dynamodb:DeleteItem"]
        resources = [local.report_table_arn]
      }
    }

    # For the commands for people: `hsdo status`, `why`, `drain` and `enable`.
    operator = {
      Table = {
        wanted    = true
        actions   = ["dynamodb:GetItem", "dynamodb:Scan", "dynamodb:UpdateItem"]
        resources = [local.table_arn]
      }
      Instances   = local.read_instances
      SpotNotices = local.read_spot_notices
      Reports     = local.read_reports
    }
  }

  descriptions = {
    server   = "hsdo --server: reads groups and instances, reads and writes the table ${var.table_name}"
    client   = "hsdo --client: reads the table ${var.table_name}"
    operator = "hsdo status, why, drain and enable: reads the table ${var.table_name}, and writes orders to it"
  }
}

data "aws_iam_policy_document" "policy" {
  for_each = local.policies

  dynamic "statement" {
    for_each = { for sid, part in each.value : sid => part if part.wanted }

    content {
      sid       = statement.key
      actions   = statement.value.actions
      resources = statement.value.resources
    }
  }
}

resource "aws_iam_policy" "policy" {
  for_each = local.policies

  name        = "${var.name_prefix}-${each.key}"
  description = local.descriptions[each.key]
  policy      = data.aws_iam_policy_document.policy[each.key].json
  tags        = var.tags
}
