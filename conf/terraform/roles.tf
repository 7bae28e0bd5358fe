# The roles of machines (instance profiles) and tasks (task roles) that run hsdo. People have roles already: give those the operator's
# policy.

locals {
  roles = toset(length(var.role_services) > 0 ? ["server", "client"] : [])
}

data "aws_iam_policy_document" "trust" {
  dynamic "statement" {
    for_each = contains(var.role_services, "ec2") ? [true] : []

    content {
      sid     = "Machines"
      actions = ["sts:AssumeRole"]

      principals {
        type        = "Service"
        identifiers = ["ec2.${data.aws_partition.current.dns_suffix}"]
      }
    }
  }

  dynamic "statement" {
    for_each = contains(var.role_services, "ecs-tasks") ? [true] : []

    content {
      sid     = "Tasks"
      actions = ["sts:AssumeRole"]

      principals {
        type        = "Service"
        identifiers = ["ecs-tasks.amazonaws.com"]
      }

      # Not for tasks of another account.
      condition {
        test     = "StringEquals"
        variable = "aws:SourceAccount"
        values   = [data.aws_caller_identity.current.account_id]
      }
    }
  }
}

resource "aws_iam_role" "role" {
  for_each = local.roles

  name                 = "${var.name_prefix}-${each.key}"
  description          = local.descriptions[each.key]
  assume_role_policy   = data.aws_iam_policy_document.trust.json
  permissions_boundary = var.permissions_boundary
  tags                 = var.tags
}

resource "aws_iam_role_policy_attachment" "role" {
  for_each = local.roles

  role       = aws_iam_role.role[each.key].name
  policy_arn = aws_iam_policy.policy[each.key].arn
}

resource "aws_iam_instance_profile" "role" {
  for_each = toset(contains(var.role_services, "ec2") ? ["server", "client"] : [])

  name = "${var.name_prefix}-${each.key}"
  role = aws_iam_role.role[each.key].name
  tags = var.tags
}
